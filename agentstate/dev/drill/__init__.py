"""The chaos drill: real processes die at every failpoint, and the other side's ledger says whether a promise broke."""
