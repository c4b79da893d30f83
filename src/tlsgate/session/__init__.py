"""
The decisions: what arrived -> what to do. Pure: no transport, reactor, clock or Deferred inside.
"""
