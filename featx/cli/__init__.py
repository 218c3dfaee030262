"""The command line: parse, call one library function, show what it returns."""
