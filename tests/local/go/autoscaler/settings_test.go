package autoscaler

import (
	"context"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	asconfig "knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/config/autoscalerconfig"
	kparesources "knative.dev/serving/pkg/reconciler/autoscaling/kpa/resources"
	"knative.dev/serving/pkg/reconciler/autoscaling/resources"
)

func answerAnnotations(q question) any {
	config, err := asconfig.NewConfigFromMap(q.Config)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	found := autoscaling.ValidateAnnotations(context.Background(), config, q.Annotations)
	return map[string]string{"text": found.ViaField("annotations").ViaField("metadata").Error()}
}

func written(c *autoscalerconfig.Config) map[string]string {
	return map[string]string{
		"enable_scale_to_zero":                  strconv.FormatBool(c.EnableScaleToZero),
		"container_concurrency_target_fraction": exact(c.ContainerConcurrencyTargetFraction),
		"container_concurrency_target_default":  exact(c.ContainerConcurrencyTargetDefault),
		"target_utilization":                    exact(c.TargetUtilization),
		"rps_target_default":                    exact(c.RPSTargetDefault),
		"target_burst_capacity":                 exact(c.TargetBurstCapacity),
		"activator_capacity":                    exact(c.ActivatorCapacity),
		"allow_zero_initial_scale":              strconv.FormatBool(c.AllowZeroInitialScale),
		"initial_scale":                         fmt.Sprint(c.InitialScale),
		"min_scale":                             fmt.Sprint(c.MinScale),
		"max_scale":                             fmt.Sprint(c.MaxScale),
		"max_scale_limit":                       fmt.Sprint(c.MaxScaleLimit),
		"max_scale_up_rate":                     exact(c.MaxScaleUpRate),
		"max_scale_down_rate":                   exact(c.MaxScaleDownRate),
		"panic_window_percentage":               exact(c.PanicWindowPercentage),
		"panic_threshold_percentage":            exact(c.PanicThresholdPercentage),
		"stable_window_ns":                      fmt.Sprint(int64(c.StableWindow)),
		"scale_to_zero_grace_period_ns":         fmt.Sprint(int64(c.ScaleToZeroGracePeriod)),
		"scale_to_zero_pod_retention_period_ns": fmt.Sprint(int64(c.ScaleToZeroPodRetentionPeriod)),
		"scale_down_delay_ns":                   fmt.Sprint(int64(c.ScaleDownDelay)),
		"pod_autoscaler_class":                  c.PodAutoscalerClass,
	}
}

func answerConfig(q question) any {
	found, err := asconfig.NewConfigFromMap(q.Config)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	return map[string]any{"config": written(found)}
}

// podAutoscaler is the object as the API server would hold it: with Knative's defaults.
func podAutoscaler(q question) *autoscalingv1alpha1.PodAutoscaler {
	pa := &autoscalingv1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "revision", Annotations: q.Annotations},
	}
	pa.Spec.ContainerConcurrency = q.Concurrency
	if q.Unreachable {
		pa.Spec.Reachability = autoscalingv1alpha1.ReachabilityUnreachable
	}
	return pa
}

func answerParameters(q question) any {
	config, err := asconfig.NewConfigFromMap(q.Config)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	pa := podAutoscaler(q)
	spec := kparesources.MakeDecider(pa, config).Spec
	metric := resources.MakeMetric(pa, "private", config)
	low, high := pa.ScaleBounds(config)
	return map[string]string{
		"max_scale_up_rate":     exact(spec.MaxScaleUpRate),
		"max_scale_down_rate":   exact(spec.MaxScaleDownRate),
		"metric":                spec.ScalingMetric,
		"target":                exact(spec.TargetValue),
		"total":                 exact(spec.TotalValue),
		"target_burst_capacity": exact(spec.TargetBurstCapacity),
		"activator_capacity":    exact(spec.ActivatorCapacity),
		"panic_threshold":       exact(spec.PanicThreshold),
		"stable_window_ns":      fmt.Sprint(int64(spec.StableWindow)),
		"scale_down_delay_ns":   fmt.Sprint(int64(spec.ScaleDownDelay)),
		"initial_scale":         fmt.Sprint(spec.InitialScale),
		"is_reachable":          strconv.FormatBool(spec.Reachable),
		"activation_scale":      fmt.Sprint(spec.ActivationScale),
		"panic_window_ns":       fmt.Sprint(int64(metric.Spec.PanicWindow)),
		"algorithm":             metric.AggregationAlgorithm(),
		"min_scale":             fmt.Sprint(low),
		"max_scale":             fmt.Sprint(high),
	}
}

// answerNumbers reads the text in each of Go's ways and writes it in each: "" is an error.
func answerNumbers(q question) any {
	found := map[string]string{}
	if number, err := strconv.ParseFloat(q.Text, 64); err == nil {
		found["float"], found["f"], found["v"] = exact(number), fmt.Sprintf("%f", number), fmt.Sprintf("%v", number)
	} else {
		found["float_error"] = err.Error()
	}
	if number, err := strconv.ParseInt(q.Text, 10, 32); err == nil {
		found["int32"] = fmt.Sprint(number)
	} else {
		found["int32_error"] = err.Error()
	}
	if number, err := strconv.Atoi(q.Text); err == nil {
		found["int"] = fmt.Sprint(number)
	}
	if duration, err := time.ParseDuration(q.Text); err == nil {
		found["duration"], found["duration_text"] = fmt.Sprint(int64(duration)), duration.String()
	} else {
		found["duration_error"] = err.Error()
	}
	if _, err := strconv.ParseBool(q.Text); err != nil {
		found["bool_error"] = err.Error()
	}
	return found
}
