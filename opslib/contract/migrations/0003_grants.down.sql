REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ops FROM ops_exporter;
REVOKE ALL ON ALL TABLES IN SCHEMA ops FROM ops_exporter, ops_staff;
REVOKE ALL ON SCHEMA ops FROM ops_exporter, ops_staff;
