"""The in-process processor: Unicorn executes the guest, and what Unicorn lacks of SVM is done here."""
