"""CMAAN: cross-modal attention alignment with text, arXiv 2407.00979; ZSE-SBIR, its base."""
