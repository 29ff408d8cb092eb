"""The command line: the only part of vargen that knows about flags and where files lie."""
