"""The laws of the contract, and everything else that must hold."""
