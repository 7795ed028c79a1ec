// Go takes functions without a body, as reconciler_test.go declares them, only beside an assembly file.
