hatchery_test(ttrpc_test
  SOURCES ttrpc_envelope_test.cc ttrpc_frame_test.cc
  DEPS hatchery_ttrpc protobuf::libprotobuf)
