// Package evidence shows what gocloud.dev's portable bucket does with a
// conditional write, a lost reply, a missing container and a listing on Azure
// Blob Storage, at the level of requests.
package evidence
