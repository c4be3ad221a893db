.DEFAULT_GOAL := help
.PHONY: help test test-compose race lint conformance bench fuzz tidy ci

# Each module is built with the versions of its own go.mod, as .ci/run does. go.work is for those
# who run an example by its path.
export GOWORK := off

LINT     := go tool -modfile=internal/tools/go.mod golangci-lint
FUZZTIME ?= 30s

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## run all tests
	go test ./...

test-compose: ## run the suites that need a server against those of docker-compose.yml
	@# One shell, so that its end, however it comes, stops the servers.
	@trap 'docker compose down' EXIT; trap 'exit 1' HUP INT TERM; set -ex; \
	docker compose up --build --detach --wait minio gcs; \
	docker compose run --rm bucket; \
	AWS_ACCESS_KEY_ID=holdfast AWS_SECRET_ACCESS_KEY=holdfast-secret HOLDFAST_TEST_REQUIRE=s3 \
		HOLDFAST_TEST_S3_URL='s3://checkpoints/test?endpoint=http://127.0.0.1:9000' \
		go test -count=1 -run '^TestConformance$$' ./s3; \
	HOLDFAST_TEST_REQUIRE=gcs HOLDFAST_TEST_GCS_URL='gs://checkpoints/test?endpoint=http://127.0.0.1:4443' \
		go test -count=1 -run '^TestConformance$$' ./gcs

race: ## run all tests with the race detector
	go test -race ./...

lint: ## vet, lint, and the import law
	go vet ./...
	$(LINT) run
	go test ./internal/importlaw

conformance: ## run the conformance suite of every driver, case by case
	go test -count=1 -v -run '^TestConformance' ./...

bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

tidy: ## format the code and tidy every module
	$(LINT) fmt
	@for file in $$(git ls-files 'go.mod' '*/go.mod'); do go -C $$(dirname $$file) mod tidy || exit 1; done

ci: ## all that a change must pass
	.ci/run
