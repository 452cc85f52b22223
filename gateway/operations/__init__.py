"""What can be asked of a gateway, whether it runs or not.

An operation is one async function: its first parameter is the `Site` it works on, the others are what it is asked, and
what it returns (or, an async generator, yields) is the answer. Its name, its types and its words are all there is to
say about it: the control socket and the command line are made from them. To add one, write the function in this
folder and add it to the list in registry.py.
"""
