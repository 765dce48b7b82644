"""The GSC autoencoder: mixture, model, losses, trainer, evaluation."""
