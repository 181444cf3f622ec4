#!/usr/bin/env python3
"""Trains the network of `digits` and writes weights.bin and three sample images.

Needs scikit-learn (written with 1.9), whose bundled data set of 1,797 handwritten digits is
the only data. The seeds are fixed, so that one version of scikit-learn gives one network;
another may round otherwise.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent
SAMPLES = HERE.parent.parent / "samples"

images, labels = load_digits(return_X_y=True)  # 8x8 pixels of 0 to 16
train_x, test_x, train_y, test_y = train_test_split(
    images / 16, labels, test_size=0.25, random_state=1, stratify=labels
)
network = MLPClassifier(
    hidden_layer_sizes=(32,), alpha=0.05, max_iter=1000, random_state=1
).fit(train_x, train_y)

# The function computes with 32 bits, so what it will get right is measured with them too.
(w1, w2), (b1, b2) = [[a.astype("<f4") for a in part] for part in (network.coefs_, network.intercepts_)]
scores = np.maximum(test_x.astype("<f4") @ w1 + b1, 0) @ w2 + b2
right = int((scores.argmax(axis=1) == test_y).sum())
print(f"{right} of {len(test_y)} test images right: {right / len(test_y):.1%}")

# Rows of a matrix are what one input contributes to every output.
(HERE / "weights.bin").write_bytes(b"".join(a.tobytes() for a in (w1, b1, w2, b2)))

# The first test images of three digits.
for digit in (3, 7, 8):
    pixels = test_x[test_y == digit][0].reshape(8, 8) * 16
    rows = "\n".join(" ".join(f"{int(p):2}" for p in row) for row in pixels)
    (SAMPLES / f"digit-{digit}.pgm").write_text(f"P2\n8 8\n16\n{rows}\n")
