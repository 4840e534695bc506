"""Pure TensorFlow functions: no TFF, no state."""
