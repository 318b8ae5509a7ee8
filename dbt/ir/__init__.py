"""The intermediate representation: types, ops, builder, verifier, text format and passes. It knows no guest, no host."""
