"""What every room stands on: errors, progress, documents, digests, seals, the state folder."""
