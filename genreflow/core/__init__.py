"""The base of all other packages: errors, progress, documents, digests, seals, the state folder."""
