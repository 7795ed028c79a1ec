-- Hourly sums of what was known: a departure once the aircraft left, an arrival once it landed, a cancellation six
-- hours after the scheduled departure. An outcome of 13:00:01 is known at 14:00, never before.
-- Every feature of a past outcome is a window over these, so none of them can see a flight's own outcome.

CREATE OR REPLACE TABLE outcomes AS
SELECT origin, dest, carrier, tailnum, 'departure' AS kind, dep_delay AS delay,
       date_trunc('hour', departed_at + INTERVAL 1 HOUR - INTERVAL 1 MICROSECOND) AS known_hour
FROM flights WHERE departed_at IS NOT NULL
UNION ALL
SELECT origin, dest, carrier, tailnum, 'arrival', arr_delay,
       date_trunc('hour', arrived_at + INTERVAL 1 HOUR - INTERVAL 1 MICROSECOND)
FROM flights WHERE arrived_at IS NOT NULL
UNION ALL
SELECT origin, dest, carrier, tailnum, 'cancellation', NULL, scheduled_hour + INTERVAL 7 HOURS
FROM flights WHERE is_cancelled;
