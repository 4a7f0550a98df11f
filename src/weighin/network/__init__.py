"""Networks as rows: blocks, rows to module, the MAC rule, ONNX export."""
