-- The aircraft as the register had it when the year began.
SELECT tailnum, TIMESTAMP '2013-01-01' AS event_timestamp,
       2013 - year AS plane_age_years,
       seats AS plane_seats,
       engines AS plane_engines,
       CASE WHEN engine = 'Turbo-jet' THEN 1 ELSE 0 END AS plane_is_turbojet
FROM planes
