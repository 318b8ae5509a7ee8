"""Everything that needs LLVM: lowering, stencils and packs, the native subset's emitter, images. The cold path."""
