"""The other side: a shop, a CRM and a mail server of its own, so that what an agent did can be proved afterwards.

Its own process and its own files, nothing shared with the service. Invariant: a call is in the ledger before it
acts, and an act is the ledger line that records it; so kill -9 at any moment leaves a ledger that tells the truth.
"""
