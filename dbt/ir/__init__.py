"""The intermediate representation: types, ops, builder, verifier, text, passes. It knows no guest and no host."""
