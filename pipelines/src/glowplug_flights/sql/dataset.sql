-- The CSV files with types, and the moments at which each outcome became known. `time_hour` is read as text, since
-- 2013-01-01T10:00:00Z becomes a UTC timestamp from there, whatever the session's time zone is.

CREATE OR REPLACE TABLE airports AS
SELECT faa, lat, lon, alt, tz, dst FROM read_csv($airports, nullstr = 'NA');

CREATE OR REPLACE TABLE planes AS
SELECT tailnum, year, manufacturer, engines, seats, engine FROM read_csv($planes, nullstr = 'NA');

CREATE OR REPLACE TABLE weather AS
SELECT origin, CAST(time_hour AS TIMESTAMP) AS observed_at,
       temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure, visib
FROM read_csv($weather, nullstr = 'NA', types = {'time_hour': 'VARCHAR'});

CREATE OR REPLACE TABLE flights AS
WITH raw AS (
  SELECT *, CAST(time_hour AS TIMESTAMP) AS scheduled_hour
  FROM read_csv($flights, nullstr = 'NA', types = {'time_hour': 'VARCHAR'})
  WHERE CAST(time_hour AS TIMESTAMP) >= CAST($start AS TIMESTAMP)
    AND CAST(time_hour AS TIMESTAMP) < CAST($stop AS TIMESTAMP)
), offsets AS (
  SELECT raw.*,
         -- -5 or -4: local hour of day less that of UTC
         (hour - extract(hour FROM scheduled_hour) + 36) % 24 - 12 AS origin_offset_h,
         -- Four airports of Puerto Rico and the Virgin Islands are not in the list: UTC-4 the whole year.
         coalesce(airports.tz, -4) AS standard_offset_h,
         coalesce(airports.dst = 'A', false) AS has_summer_time
  FROM raw LEFT JOIN airports ON airports.faa = raw.dest
), times AS (
  SELECT *,
         standard_offset_h + CASE WHEN has_summer_time AND origin_offset_h = -4 THEN 1 ELSE 0 END AS dest_offset_h,
         (sched_arr_time // 100) * 60 + sched_arr_time % 100 AS arrival_minute,
         hour * 60 + minute AS departure_minute
  FROM offsets
), blocks AS (
  SELECT *,
         scheduled_hour + to_minutes(CAST(minute AS INTEGER)) AS scheduled_at,
         -- Gate to gate, in minutes: local clock times less the difference of their zones, within one day.
         CAST((arrival_minute - departure_minute - 60 * (dest_offset_h - origin_offset_h) + 2880) % 1440 AS INTEGER)
           AS block_minutes
  FROM times
)
SELECT carrier, flight, tailnum, origin, dest, distance, month, day, hour, minute,
       make_date(CAST(year AS INTEGER), CAST(month AS INTEGER), CAST(day AS INTEGER)) AS local_date,
       scheduled_hour, scheduled_at, block_minutes, dest_offset_h, dep_delay, arr_delay,
       dep_time IS NULL AS is_cancelled,
       scheduled_at + to_minutes(CAST(dep_delay AS INTEGER)) AS departed_at,
       scheduled_at + to_minutes(CAST(block_minutes + arr_delay AS INTEGER)) AS arrived_at
FROM blocks;
