"""The AArch64 guest: one module for each chapter of instructions of the Arm manual (DDI 0487)."""
