"""Machine code written as Python: what guests, firmware and monitor are made of."""
