"""The KFP components: types in and out, and one call into the library each."""
