"""Tools over the library: trace, coverage, profile, explain. Nothing of `dragoman run` imports them."""
