"""Everything that needs LLVM: lowering of the IR, stencils and packs, the native subset's emitter, images. Cold path."""
