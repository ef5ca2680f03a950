"""Networks as plain `nn.Module`s; they know no Lightning."""
