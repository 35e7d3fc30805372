"""What lisa-nano learns from: photographs, composite and symbolic scenes, texts, and questions.

It knows images, names and masks; it refuses to know tensors and the model.
"""
