"""What each capability of an integration promises to the engines: one suite a capability, for every integration.

An integration brings an `OtherSide` for itself (other_side.py) and a class in test_every_integration.py that inherits
the suites of its capabilities. A package of somebody else does the same with these suites. To add a capability, add its
suite here and to SUITES there.
"""
