"""Any Gymnasium environment that draws itself and has a Box of actions, as a world: see docs/your-own-env.md."""
