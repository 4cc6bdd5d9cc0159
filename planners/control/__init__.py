"""Driving a robot: the shield that certifies every action, and the loop that sends it."""
