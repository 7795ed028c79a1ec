package autoscaler

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	netstats "knative.dev/networking/pkg/http/stats"
	"knative.dev/serving/pkg/autoscaler/aggregation"
	"knative.dev/serving/pkg/autoscaler/aggregation/max"
	am "knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/autoscaler/scaling"
)

// traceSpec is the first line of a trace, as `glowplug autoscaler replay` takes it.
type traceSpec struct {
	Target              float64 `json:"target"`
	Total               float64 `json:"total"`
	MaxScaleUpRate      float64 `json:"max_scale_up_rate"`
	MaxScaleDownRate    float64 `json:"max_scale_down_rate"`
	PanicThreshold      float64 `json:"panic_threshold"`
	StableWindow        float64 `json:"stable_window_s"`
	ScaleDownDelay      float64 `json:"scale_down_delay_s"`
	TargetBurstCapacity float64 `json:"target_burst_capacity"`
	ActivationScale     int32   `json:"activation_scale"`
	Reachable           bool    `json:"reachable"`
	InitialReady        int     `json:"initial_ready"`
}

// observed is the trace's current tick, in the two roles in which the autoscaler asks for it.
type observed struct{ tick }

func (o *observed) ReadyCount() (int, error)    { return o.Ready, nil }
func (o *observed) NotReadyCount() (int, error) { return 0, nil }

func (o *observed) StableAndPanicConcurrency(types.NamespacedName, time.Time) (float64, float64, error) {
	if o.NoData {
		return 0, 0, am.ErrNoData
	}
	return o.Stable, o.Panic, nil
}

func (o *observed) StableAndPanicRPS(key types.NamespacedName, now time.Time) (float64, float64, error) {
	return o.StableAndPanicConcurrency(key, now)
}

type decision struct {
	Valid   bool  `json:"valid"`
	Desired int32 `json:"desired"`
	Excess  int32 `json:"excess_burst_capacity"`
}

func answerTrace(q question) any {
	start := time.Now()
	source := &observed{tick{Ready: q.Spec.InitialReady}}
	scaler := scaling.New(attribute.NewSet(), noop.NewMeterProvider(), "default", "revision", source, source,
		&scaling.DeciderSpec{
			MaxScaleUpRate:      q.Spec.MaxScaleUpRate,
			MaxScaleDownRate:    q.Spec.MaxScaleDownRate,
			ScalingMetric:       "concurrency",
			TargetValue:         q.Spec.Target,
			TotalValue:          q.Spec.Total,
			TargetBurstCapacity: q.Spec.TargetBurstCapacity,
			ActivatorCapacity:   100,
			PanicThreshold:      q.Spec.PanicThreshold,
			StableWindow:        seconds(q.Spec.StableWindow),
			ScaleDownDelay:      seconds(q.Spec.ScaleDownDelay),
			InitialScale:        1,
			Reachable:           q.Spec.Reachable,
			ActivationScale:     q.Spec.ActivationScale,
		})
	decisions := make([]decision, 0, len(q.Ticks))
	logger := zap.NewNop().Sugar()
	for _, observation := range q.Ticks {
		now := until(start, observation.T)
		source.tick = observation
		found := scaler.Scale(logger, now)
		decisions = append(decisions, decision{found.ScaleValid, found.DesiredPodCount, found.ExcessBurstCapacity})
	}
	return decisions
}

type windowSpec struct {
	Algorithm   string  `json:"algorithm"`
	Window      float64 `json:"window_s"`
	Granularity float64 `json:"granularity_s"`
}

type buckets interface {
	Record(time.Time, float64)
	ResizeWindow(time.Duration)
	WindowAverage(time.Time) float64
	IsEmpty(time.Time) bool
}

// exact prints a number so that every bit of it can be read back, NaN and infinities too.
func exact(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func answerWindow(q question) any {
	start := time.Now()
	window, granularity := seconds(q.Window.Window), seconds(q.Window.Granularity)
	var found buckets = aggregation.NewTimedFloat64Buckets(window, granularity)
	if q.Window.Algorithm == "weighted" {
		found = aggregation.NewWeightedFloat64Buckets(window, granularity)
	}
	answers := make([]string, 0, len(q.Ops))
	for _, o := range q.Ops {
		now := until(start, o.T)
		switch o.Do {
		case "record":
			found.Record(now, o.Value)
		case "resize":
			found.ResizeWindow(seconds(o.Value))
		}
		answers = append(answers, exact(found.WindowAverage(now))+" "+strconv.FormatBool(found.IsEmpty(now)))
	}
	return answers
}

func answerMaximum(q question) any {
	start := time.Now()
	window := max.NewTimeWindow(seconds(q.Window.Window), seconds(q.Window.Granularity))
	answers := make([]int32, 0, len(q.Ops))
	for _, o := range q.Ops {
		window.Record(until(start, o.T), int32(o.Value))
		answers = append(answers, window.Current())
	}
	return answers
}

var events = map[string]netstats.ReqEventType{
	"in": netstats.ReqIn, "out": netstats.ReqOut, "proxied_in": netstats.ProxiedIn, "proxied_out": netstats.ProxiedOut,
}

func answerMeter(q question) any {
	start := time.Now()
	meter := netstats.NewRequestStats(start)
	answers := [][]string{}
	for _, o := range q.Ops {
		now := start.Add(seconds(o.T))
		if o.Do != "report" {
			meter.HandleEvent(netstats.ReqEvent{Time: now, Type: events[o.Do]})
			continue
		}
		found := meter.Report(now)
		answers = append(answers, []string{
			exact(found.AverageConcurrency), exact(found.AverageProxiedConcurrency),
			exact(found.RequestCount), exact(found.ProxiedRequestCount),
		})
	}
	return answers
}
