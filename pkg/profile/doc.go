// Package profile is the delivery contracts: everything that differs between receivers, as data. A profile says how the
// body and the headers look, what is signed and how, what each response means, and when the next attempt is made.
//
// Profiles are YAML files, the built-in ones embedded and the operators' own read from a directory, all checked against
// one schema at start. [Catalog] holds them by name and version; [Profile.Contract] joins one with a subscription's
// overrides; a [Contract] then builds requests and decides what follows from a response. All of it is pure: no I/O after
// loading, and time and randomness are arguments. No code here or in the engine asks for a profile's name.
package profile
