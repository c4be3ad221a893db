// Package soak has one test: owners that compete for tasks, a collector, readers, an amender
// and a forker, each with a connection of its own that fails, on a real server. What
// each of them is told is held against the history that they have made.
package soak
