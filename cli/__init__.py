"""The command line, installed as ``bigunet.cli``: options, one library call, one echo."""
