"""Ground floor: errors, exact arithmetic, keyed randomness, digests, the door to optional packages."""
