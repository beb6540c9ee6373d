"""From a config to motion.safetensors."""
