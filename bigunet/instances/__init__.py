"""Objects over the whole slide: one id each, whatever the blocks."""
