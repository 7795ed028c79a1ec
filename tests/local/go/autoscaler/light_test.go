//go:build !reconciler

package autoscaler

func answerScale(question) any { return needsReconciler }

func answerStatus(question) any { return needsReconciler }

var needsReconciler = map[string]string{"error": "built without the tag reconciler"}
