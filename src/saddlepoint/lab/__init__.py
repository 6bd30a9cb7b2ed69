"""The tutorial's theorems and phenomena, and the toolkit's own claims, as experiments that anybody can run."""
