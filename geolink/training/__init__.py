"""The training loop, shared by pretraining and fine-tuning: settings, data order, state, logs."""
