"""A model as a captured graph: torch.export, the ONNX reader, one small IR."""
