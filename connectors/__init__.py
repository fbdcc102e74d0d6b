"""The provider side of simusage: one module per provider over shared parts, and the laptop run."""
