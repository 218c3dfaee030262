"""How one sample becomes one vector: backbones, descriptors, and what identifies them."""
