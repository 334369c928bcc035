"""Tables: a pure function of a declaration, the published values and the result records."""
