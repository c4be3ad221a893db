// Package deploycheck holds tests of what is in deploy/ and docs/deploy: dashboard and alerts
// against the metrics of a real run, manifests against the types of Kubernetes, Terraform's
// policies against those of the documents, systemd's units, and the static binary as the
// first process of a container.
//
// It is a module of its own, because these tests need Prometheus' and Kubernetes' packages,
// which nobody who uses Holdfast should have to fetch:
//
//	GOWORK=off go -C internal/deploycheck test ./...
package deploycheck
