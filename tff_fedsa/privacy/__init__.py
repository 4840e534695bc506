"""What leaves a client, and how it is protected: differential privacy."""
