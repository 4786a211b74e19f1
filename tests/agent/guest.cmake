hatchery_test(ttrpc_test
  SOURCES ttrpc_envelope_test.cc ttrpc_frame_test.cc
  DEPS hatchery_ttrpc protobuf::libprotobuf)

hatchery_test(guest_test
  SOURCES guest_exec_test.cc guest_personalize_test.cc guest_server_test.cc
  DEPS hatchery_guest protobuf::libprotobuf)
